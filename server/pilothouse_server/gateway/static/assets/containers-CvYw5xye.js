import{g as o}from"./sources-DYa19U6X.js";import{H as r}from"./index-DadNBsUB.js";const i=r(o);export{i as c};
