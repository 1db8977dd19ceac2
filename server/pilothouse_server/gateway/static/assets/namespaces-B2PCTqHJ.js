import{d as e}from"./namespace_pb-BZC5YUeM.js";import{H as a}from"./index-Dh_8V8Vs.js";const o=a(e);export{o as n};
