import{d as o}from"./container_pb-DzQOdmPz.js";import{H as r}from"./index-DJ6KK-Qo.js";const i=r(o);export{i as c};
