import{f as o}from"./sources-CoHZzN1A.js";import{H as r}from"./index-D0k_309S.js";const i=r(o);export{i as c};
