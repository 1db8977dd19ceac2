import{f as o}from"./sources-CEDqvx4O.js";import{H as r}from"./index-BCJbnMkp.js";const i=r(o);export{i as c};
