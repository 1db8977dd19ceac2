import{e}from"./namespace_pb-Q5t5yKFe.js";import{H as a}from"./index-B-HHcE1d.js";const o=a(e);export{o as n};
