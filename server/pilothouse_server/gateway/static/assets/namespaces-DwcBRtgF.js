import{e}from"./namespace_pb-DB6rnzoy.js";import{H as a}from"./index-BCJbnMkp.js";const o=a(e);export{o as n};
