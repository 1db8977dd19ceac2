import{d as o}from"./container_pb-DJR4jix1.js";import{H as r}from"./index-F5coEF8b.js";const i=r(o);export{i as c};
