import{f as e}from"./namespace_pb-j8S7jdW2.js";import{H as a}from"./index-lKgTayUx.js";const o=a(e);export{o as n};
