import{d as e}from"./namespace_pb-Hu-UiPd7.js";import{H as a}from"./index-Bo91R_OJ.js";const o=a(e);export{o as n};
