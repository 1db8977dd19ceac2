import{e as o}from"./container_pb-W5nooCgM.js";import{H as r}from"./index-DKcfaVMa.js";const i=r(o);export{i as c};
