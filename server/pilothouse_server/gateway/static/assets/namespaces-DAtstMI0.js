import{e}from"./namespace_pb-D-UV6_Nm.js";import{H as a}from"./index-BuOBVicn.js";const o=a(e);export{o as n};
