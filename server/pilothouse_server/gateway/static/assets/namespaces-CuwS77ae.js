import{f as e}from"./namespace_pb-1gWTN7g3.js";import{H as a}from"./index-CnUYotAr.js";const o=a(e);export{o as n};
