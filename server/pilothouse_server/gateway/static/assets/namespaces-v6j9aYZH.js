import{e}from"./namespace_pb-8_-BfucC.js";import{H as a}from"./index-DKcfaVMa.js";const o=a(e);export{o as n};
