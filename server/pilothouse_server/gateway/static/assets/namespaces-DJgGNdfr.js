import{e}from"./namespace_pb-DqGpk0DC.js";import{H as a}from"./index-CmR-qrXV.js";const o=a(e);export{o as n};
