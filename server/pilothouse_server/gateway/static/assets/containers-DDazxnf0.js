import{e as o}from"./container_pb-exyMmmp2.js";import{H as r}from"./index-fcYdYEPg.js";const i=r(o);export{i as c};
