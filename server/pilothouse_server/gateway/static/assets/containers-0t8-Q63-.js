import{g as o}from"./sources-Bj37xO-U.js";import{H as r}from"./index-CVkVUnLG.js";const i=r(o);export{i as c};
