import{e as o}from"./container_pb-DVKppaow.js";import{H as r}from"./index-DKpCAZPJ.js";const i=r(o);export{i as c};
