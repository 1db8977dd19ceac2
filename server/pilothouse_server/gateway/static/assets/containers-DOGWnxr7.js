import{g as o}from"./sources-ZF88ryU2.js";import{H as r}from"./index-BpfvGLDb.js";const i=r(o);export{i as c};
