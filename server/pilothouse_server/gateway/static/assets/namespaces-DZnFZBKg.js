import{e}from"./namespace_pb-B4BT0oMo.js";import{H as a}from"./index-DKOD0ifJ.js";const o=a(e);export{o as n};
