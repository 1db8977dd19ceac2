import{f as e}from"./namespace_pb-CsTUbZUq.js";import{H as a}from"./index-l_Plumab.js";const o=a(e);export{o as n};
