import{e as o}from"./container_pb-CTGgIktQ.js";import{H as r}from"./index-BlizQIps.js";const i=r(o);export{i as c};
