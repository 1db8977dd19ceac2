import{e}from"./namespace_pb-DJ66JM7l.js";import{H as a}from"./index-DJ6KK-Qo.js";const o=a(e);export{o as n};
