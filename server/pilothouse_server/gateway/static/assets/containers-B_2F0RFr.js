import{d as o}from"./container_pb-Crlkx8OE.js";import{H as r}from"./index-IOb0Zg2e.js";const i=r(o);export{i as c};
