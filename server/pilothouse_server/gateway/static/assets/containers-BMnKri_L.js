import{g as o}from"./sources-C9TTrGmR.js";import{H as r}from"./index-vQPD6Vf6.js";const i=r(o);export{i as c};
