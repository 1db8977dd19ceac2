import{d as e}from"./namespace_pb-DLNnmokY.js";import{H as a}from"./index-123wEqBA.js";const o=a(e);export{o as n};
