import{e}from"./namespace_pb-8908CjWx.js";import{H as a}from"./index-D0k_309S.js";const o=a(e);export{o as n};
