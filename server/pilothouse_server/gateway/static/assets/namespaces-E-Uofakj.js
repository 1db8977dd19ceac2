import{e}from"./namespace_pb-BTZkvGoy.js";import{H as a}from"./index-_qj4ujk0.js";const o=a(e);export{o as n};
