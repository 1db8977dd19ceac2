import{e}from"./namespace_pb-CKGpIM7Y.js";import{H as a}from"./index-BlizQIps.js";const o=a(e);export{o as n};
