import{g as o}from"./sources-CyeF_9Nz.js";import{H as r}from"./index-CmR-qrXV.js";const i=r(o);export{i as c};
