import{g as o}from"./sources-BT8tN9A7.js";import{H as r}from"./index-tV0qcI5U.js";const i=r(o);export{i as c};
