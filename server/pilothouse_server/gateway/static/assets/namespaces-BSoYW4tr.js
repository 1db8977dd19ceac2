import{f as e}from"./namespace_pb-DRGjREfm.js";import{H as a}from"./index-BpfvGLDb.js";const o=a(e);export{o as n};
