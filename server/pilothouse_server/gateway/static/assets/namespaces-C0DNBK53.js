import{e}from"./namespace_pb-D1t8OAN9.js";import{H as a}from"./index-Bbyhyn-4.js";const o=a(e);export{o as n};
