import{d as o}from"./container_pb-CyBKgq_w.js";import{H as r}from"./index-_qj4ujk0.js";const i=r(o);export{i as c};
