import{d as o}from"./container_pb-DAxWIsGg.js";import{H as r}from"./index-BuOBVicn.js";const i=r(o);export{i as c};
