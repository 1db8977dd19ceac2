import{d as e}from"./namespace_pb-BCAhornq.js";import{H as a}from"./index-DMIKOUQ6.js";const o=a(e);export{o as n};
