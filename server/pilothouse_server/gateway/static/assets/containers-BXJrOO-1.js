import{g as o}from"./sources-CwOqNpU3.js";import{H as r}from"./index-D8PlvcKW.js";const i=r(o);export{i as c};
