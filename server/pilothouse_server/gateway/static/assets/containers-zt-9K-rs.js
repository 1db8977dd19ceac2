import{f as o}from"./sources-D6BzzvFq.js";import{H as r}from"./index-B-HHcE1d.js";const i=r(o);export{i as c};
