import{g as o}from"./sources-Cw-xe0gR.js";import{H as r}from"./index-lKgTayUx.js";const i=r(o);export{i as c};
