import{g as o}from"./sources-BjrgYj_n.js";import{H as r}from"./index-l_Plumab.js";const i=r(o);export{i as c};
