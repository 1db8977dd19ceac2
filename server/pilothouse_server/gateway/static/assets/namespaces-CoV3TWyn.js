import{e}from"./namespace_pb-BO3Yei_D.js";import{H as a}from"./index-vxNZgu4G.js";const o=a(e);export{o as n};
