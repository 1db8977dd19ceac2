import{f as e}from"./namespace_pb-BLe4B0Vc.js";import{H as a}from"./index-D8PlvcKW.js";const o=a(e);export{o as n};
