import{e as o}from"./container_pb-DkaUC_mX.js";import{H as r}from"./index-DKOD0ifJ.js";const i=r(o);export{i as c};
