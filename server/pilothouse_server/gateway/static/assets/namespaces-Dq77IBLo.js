import{d as e}from"./namespace_pb-CG_NRDRW.js";import{H as a}from"./index-Byzagpug.js";const o=a(e);export{o as n};
