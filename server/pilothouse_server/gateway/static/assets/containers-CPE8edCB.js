import{d as o}from"./container_pb-C8PdlLjq.js";import{H as r}from"./index-vxNZgu4G.js";const i=r(o);export{i as c};
