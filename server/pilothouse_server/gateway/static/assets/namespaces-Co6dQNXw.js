import{f as e}from"./namespace_pb-PGflC45m.js";import{H as a}from"./index-DadNBsUB.js";const o=a(e);export{o as n};
