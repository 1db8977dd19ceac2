import{g as o}from"./sources-vOfJDPAb.js";import{H as r}from"./index-CnUYotAr.js";const i=r(o);export{i as c};
