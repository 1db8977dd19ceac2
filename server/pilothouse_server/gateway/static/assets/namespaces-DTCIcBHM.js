import{e}from"./namespace_pb-B4Ahaiq6.js";import{H as a}from"./index-F5coEF8b.js";const o=a(e);export{o as n};
