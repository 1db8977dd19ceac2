import{e}from"./namespace_pb-DDwT-HFL.js";import{H as a}from"./index-fcYdYEPg.js";const o=a(e);export{o as n};
