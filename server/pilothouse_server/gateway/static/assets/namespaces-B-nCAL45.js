import{f as e}from"./namespace_pb-CbxItyLv.js";import{H as a}from"./index-vQPD6Vf6.js";const o=a(e);export{o as n};
