import{e as o}from"./container_pb-CTazPsWE.js";import{H as r}from"./index-CkPoOB6a.js";const i=r(o);export{i as c};
