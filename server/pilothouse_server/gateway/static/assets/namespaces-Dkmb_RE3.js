import{d as e}from"./namespace_pb-CYyXzuDO.js";import{H as a}from"./index-Rfo3ebcK.js";const o=a(e);export{o as n};
