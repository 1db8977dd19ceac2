import{d as o}from"./container_pb-DizKeSYS.js";import{H as r}from"./index-rp4WbzCS.js";const i=r(o);export{i as c};
