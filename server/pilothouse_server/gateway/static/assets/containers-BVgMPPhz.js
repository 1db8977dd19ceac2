import{d as o}from"./container_pb-CLyzh6Wv.js";import{H as r}from"./index-Bbyhyn-4.js";const i=r(o);export{i as c};
