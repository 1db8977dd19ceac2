import{d as e}from"./namespace_pb-Dh5brWtT.js";import{H as a}from"./index-BnyH4sPD.js";const o=a(e);export{o as n};
